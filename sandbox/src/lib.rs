//! Cofferdam sandbox.
