"""The page that shows predicted hands: one HTML file that fetches nothing."""
