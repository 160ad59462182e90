"""Networks that others trained on ImageNet: `weights` gets and checks them, `networks` builds them, and nothing trains them."""
