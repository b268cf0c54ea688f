"""Pure decisions about alerts: neither Django nor a clock of their own."""
