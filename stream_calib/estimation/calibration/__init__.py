"""Full fits: maximum likelihood, standard errors, diagnostics."""
