//! What a file means once it is read.
