"""Ruby, read and never run: as much of its syntax as a schedule.rb has."""
