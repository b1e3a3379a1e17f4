"""How far a measuring command has come: a table while it runs, a status file, a report after a crash."""
