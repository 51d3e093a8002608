"""The web application: jobs, nodes, comparisons and the fleet in a browser, for those who may see them.

Pages read logbooks only through `request.state.jobs`, which is bound to the visitor; nothing here opens one otherwise.
"""
