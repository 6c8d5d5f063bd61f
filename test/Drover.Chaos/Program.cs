using Drover.Chaos;

// Programs that tests start in order to kill them. One verb per part of the product.
return args switch
{
    ["engine", var database, var ledger, var scenario, .. var rest] => await EngineChild.RunAsync(database, ledger, scenario, rest),
    _ => Usage(),
};

static int Usage()
{
    Console.Error.WriteLine("usage: Drover.Chaos engine <database> <ledger> <scenario> [args]");
    return 2;
}
