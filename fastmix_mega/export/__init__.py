"""A mixture on its way out of fastmix and into it: other trainers' formats."""
