//! Renders receipts for people.
