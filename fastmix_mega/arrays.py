"""The one array type of the project's mathematics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
"""Vectors and matrices of float64; a docstring gives the shape."""
