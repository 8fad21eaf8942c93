"""All I/O and time of the operator: watch, remember, queue, gather, carry out."""
