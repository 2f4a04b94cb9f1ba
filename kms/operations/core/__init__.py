"""What every operation rests on: how it is declared and carried out, the service, access to keys."""
