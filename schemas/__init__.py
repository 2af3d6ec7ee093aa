"""Contracts of Freshet: events, registers, records and topics. Pure: no I/O, no clocks."""
