//! Pure: Cedar in, verdict out; the only mint of a permit.
