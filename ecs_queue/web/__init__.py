"""The web page of `ecs-queue web`: what the command line shows, in a browser (docs/web.md)."""
