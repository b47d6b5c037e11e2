//! Pure: the run as a state machine over records. No IO, no clock, no randomness.
