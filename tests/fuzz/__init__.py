"""Files mutated by their structure, and what every command makes of them.

`kinds` lists what is mutated and which commands read it, `specimens` makes the valid files, `sandbox` runs
one input in a process of its own and judges it, `campaign` runs many; ``python -m fuzz`` is the command.
"""
