"""The command line `freshet`: one file a command group, everything heavy imported in commands."""
