//! Sends selected requests to shadow hosts and reads their answers.
