//! Cofferdam share.
