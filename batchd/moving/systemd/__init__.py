"""systemd: timers and the services that they start, with drop-ins."""
