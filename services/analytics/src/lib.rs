//! The analytics service: materialises rollups, answers and streams queries.
