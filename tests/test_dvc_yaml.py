"""dvc.yaml says what each stage's outputs follow from: no more, no less."""
