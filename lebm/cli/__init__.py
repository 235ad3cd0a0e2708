"""The command line. Modules here import torch and Lightning only inside the verbs that need them."""
