//! The system calls std lacks, with safe faces.
