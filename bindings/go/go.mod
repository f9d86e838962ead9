module raydistill

go 1.19
