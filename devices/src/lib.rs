//! Cofferdam devices.
