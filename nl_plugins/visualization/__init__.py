"""Pictures of what models predict and of what their blocks attend to."""
