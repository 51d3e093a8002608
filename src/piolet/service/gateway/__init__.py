"""The gateway: one stable address with the OpenAI API in front of all inference services, wherever they run."""
