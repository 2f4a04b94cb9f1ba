"""Keys, their versions, states and periods: plain Python that knows neither Flask nor SQL."""
