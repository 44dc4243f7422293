//! MSRs.
