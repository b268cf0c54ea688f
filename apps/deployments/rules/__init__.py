"""Decisions about deployments. Pure: the clock is an argument, no row is read, no Django."""
