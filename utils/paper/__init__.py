"""What knows a printed number, draws or renders: tables, figures, studies and pages."""
