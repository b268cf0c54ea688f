"""How the console writes times: ISO order, 24 hours, with the zone, so that they can be compared with log lines."""
