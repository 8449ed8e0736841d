"""The overnight run beside its peers, under a limit, under kills, and at a million rows."""
