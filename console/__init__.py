"""Pages for people. This release has those that messages link to: see an incident, answer it once."""
