"""The tracking server as whoever runs it sees it: settings, processes, the guard in front, users, backups."""
