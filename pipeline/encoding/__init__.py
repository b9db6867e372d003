"""From texts and pictures to tokens and features, through a store that computes nothing twice."""
