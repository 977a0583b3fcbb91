"""The page to look at predicted hands: one HTML file that fetches nothing."""
