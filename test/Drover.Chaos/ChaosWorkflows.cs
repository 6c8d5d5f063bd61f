using Drover.Workflows;

namespace Drover.Chaos;

/// <summary>Bodies that touch every kind of checkpoint and leave a trace of every step they really ran.</summary>
internal sealed class ChaosWorkflows
{
    public static readonly WorkflowQueue Queue = new("chaos") { Concurrency = 8 };
    public static readonly string[] Kinds = ["step", "transact", "sleep", "send", "receive", "outcome", "continue"];

    private readonly Ledger _ledger;

    public ChaosWorkflows(Ledger ledger)
    {
        _ledger = ledger;
        Mix = Workflow.Define<int, string>("mix", MixAsync);
        Receiver = Workflow.Define<int, string>("receiver", ReceiveAsync, WorkflowLimits.None);
        Gate = Workflow.Define<string, string>("gate", GateAsync);
        Sink = Workflow.Define<string>("sink", async context => await context.ReceiveAsync<string>("t", TimeSpan.FromMinutes(2)) ?? "nothing");
        Plain = Workflow.Define<string, string>("plain", async (context, text) => await Note(context, "plain", text));
        Poison = Workflow.Define<string>("poison", async context =>
        {
            await Note(context, "before");
            return await context.StepAsync<string>("kill", step =>
            {
                _ledger.Write(step.WorkflowId, "kill", step.Attempt);
                if (File.Exists(_ledger.GoFile))
                    return Task.FromResult("survived");
                System.Diagnostics.Process.GetCurrentProcess().Kill();
                return new TaskCompletionSource<string>().Task;
            });
        }, new WorkflowLimits { MaxRecoveryAttempts = null, MaxStalledRecoveries = 3 });
        Short = Workflow.Define<int, int>("short", async (context, n) =>
        {
            int sum = 0;
            for (int i = 0; i < n; i++)
                sum += await context.StepAsync("add", _ => Task.FromResult(1));
            return sum;
        });
    }

    public Workflow<int, string> Mix { get; }
    public Workflow<int, string> Receiver { get; }
    public Workflow<string, string> Gate { get; }
    public Workflow<string> Sink { get; }
    public Workflow<string, string> Plain { get; }
    public Workflow<string> Poison { get; }
    public Workflow<int, int> Short { get; }

    public IEnumerable<WorkflowDefinition> All => [Mix, Receiver, Gate, Sink, Plain, Poison, Short];

    public Task CreateTableAsync(WorkflowClient client) => client.TransactAsync(tx =>
        tx.Session.Execute("CREATE TABLE IF NOT EXISTS chaos_rows (workflow TEXT NOT NULL, name TEXT NOT NULL)"));

    private Task<string> Note(WorkflowContext context, string name, string result = "ok") => context.StepAsync(name, step =>
    {
        _ledger.Write(step.WorkflowId, name, step.Attempt, result);
        return Task.FromResult(result);
    });

    // Direct or queued; then everything a body can do; then once more as a new workflow.
    private async Task<string> MixAsync(WorkflowContext context, int generation)
    {
        await Note(context, "first");
        await Task.WhenAll(Note(context, "left"), Note(context, "middle"), Note(context, "right"));
        await context.TransactAsync("row", tx => tx.Session.Execute(
            "INSERT INTO chaos_rows (workflow, name) VALUES (@w, 'mix')", ("@w", context.WorkflowId)));
        await context.SleepAsync(TimeSpan.FromMilliseconds(3));
        string root = context.WorkflowId.Split(':')[0];
        int number = int.Parse(root.AsSpan("mix-".Length), System.Globalization.CultureInfo.InvariantCulture);
        await context.SendAsync($"recv-{number / 10}", context.WorkflowId, "t");
        await Note(context, "last");
        return generation > 0 ? await context.ContinueAsNewAsync(Mix, generation - 1) : "mixed";
    }

    private async Task<string> ReceiveAsync(WorkflowContext context, int count)
    {
        var got = new List<string>();
        for (int i = 0; i < count; i++)
        {
            string message = await context.ReceiveAsync<string>("t", TimeSpan.FromMinutes(5)) ?? "nothing";
            got.Add(await Note(context, $"got-{i}", message));
        }
        got.Sort(StringComparer.Ordinal);
        return string.Join(',', got);
    }

    // Stops between two checkpoints until the go file is there, so that the next write is of the wanted kind.
    private async Task<string> GateAsync(WorkflowContext context, string kind)
    {
        if (kind == "again")
            return await Note(context, "again", "again");
        await Note(context, "begin");
        _ledger.Write(context.WorkflowId, "at-gate", 1);
        using (var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(2)))
        {
            while (!File.Exists(_ledger.GoFile))
                await timer.WaitForNextTickAsync();
        }
        switch (kind)
        {
            case "step":
                await Note(context, "after");
                break;
            case "transact":
                await context.TransactAsync("row", tx => tx.Session.Execute(
                    "INSERT INTO chaos_rows (workflow, name) VALUES (@w, 'gate')", ("@w", context.WorkflowId)));
                break;
            case "sleep":
                await context.SleepAsync(TimeSpan.FromMilliseconds(20));
                break;
            case "send":
                await context.SendAsync("sink", "from-gate", "t");
                break;
            case "receive":
                return await context.ReceiveAsync<string>("t", TimeSpan.FromMinutes(2)) ?? "nothing";
            case "continue":
                return await context.ContinueAsNewAsync(Gate, "again");
        }
        return kind;
    }
}
