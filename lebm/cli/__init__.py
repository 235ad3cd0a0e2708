"""The command line. Its modules import torch and Lightning only inside the verbs that need them."""
