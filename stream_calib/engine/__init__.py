"""The program as a pure state machine: no await, no clock, no input or output."""
