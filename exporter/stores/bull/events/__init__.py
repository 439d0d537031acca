"""The events that Bull publishes: nobody keeps them, so they are heard or lost."""
