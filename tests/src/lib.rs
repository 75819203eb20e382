//! Whole-system tests: modules are named for behaviours.
