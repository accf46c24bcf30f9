"""`fastmix doctor`: does a machine, or a job's machines, do all that a run needs?

`examination.py` runs the parts one after another, each in processes of its own with a time limit,
so that a part that hangs or dies is a finding and not the end; about three minutes in all.
`worker.py` is what the processes of a part do. What comes of it is in `findings.py`: a verdict to
read and a JSON file to send.
"""
