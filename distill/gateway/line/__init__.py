"""One teacher's line: when a request may be sent.

`Lane` is who waits and who is next; it asks how many may be under way (`concurrency`, which `saturation` helps where a
server queues instead of refusing), what the rates a minute allow (`limits`), and whether the teacher is left alone just
now (`parking`). Quotas by the day (`daily`) are looked at last, when a turn has come.
"""
