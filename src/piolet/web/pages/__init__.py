"""The pages. Each reads jobs through `request.state.jobs` alone, so it shows what its visitor may see."""
