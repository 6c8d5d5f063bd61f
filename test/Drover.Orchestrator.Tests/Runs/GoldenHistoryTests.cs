using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Drover.Orchestrator.Runs;
using Drover.TestKit;
using Drover.Workflows;
using Drover.Workflows.Sqlite;
using Microsoft.Extensions.Logging.Abstractions;

namespace Drover.Orchestrator.Tests.Runs;

/// <summary>
/// Recorded histories of every protocol, as they stood in a database (DESIGN 3.9). A change of an orchestrator workflow that
/// breaks one of them needs a patch marker, or a new protocol number and new histories.
/// </summary>
/// <remarks>Made by <c>DROVER_UPDATE_GOLDEN=1</c> and this class; nothing in them is edited.</remarks>
[Trait("Speed", "slow")]
public sealed class GoldenHistoryTests
{
    private static readonly string[] Workflows = ["DroverRunWorkflow", "ExecuteTaskWorkflow", "LandingWorkflow"];
    private static readonly JsonSerializerOptions Readable = new() { WriteIndented = true, NewLine = "\n", Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private static string Folder()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "Drover.slnx")))
            folder = Path.GetDirectoryName(folder);
        return Path.Combine(folder ?? throw new InvalidOperationException("the sources are not there"), "test", "Drover.Orchestrator.Tests", "Runs", "Golden");
    }

    private static string FileOf(string workflow) => Path.Combine(Folder(), $"{Protocol.Version}.{workflow}.json");

    /// <summary>Two tasks that conflict: worktree, agent, gate, conflict turn, gate, two landings, clean-up.</summary>
    [Fact]
    public async Task Record_the_histories_of_this_protocol()
    {
        Assert.SkipUnless(Environment.GetEnvironmentVariable("DROVER_UPDATE_GOLDEN") == "1", "records only with DROVER_UPDATE_GOLDEN=1");
        await using var repo = new RunFixture();
        repo.Script("""
            case "$prompt" in *"## Merge conflict"*) printf 'both\n' > shared.txt; echo solved; exit 0 ;; esac
            case "$DROVER_TASK_TITLE" in *"one way"*) printf 'one\n' > shared.txt ;; *) until_moved; printf 'another\n' > shared.txt ;; esac
            echo did it
            """);
        await repo.AddAsync("Change the shared line one way");
        string second = await repo.AddAsync("Change the shared line another way");
        Assert.Equal(0, (await repo.RunAsync(new() { Workers = 2 })).ExitCode);
        Directory.CreateDirectory(Folder());
        foreach (string workflow in Workflows)
        {
            // The longest: the second task's for ExecuteTaskWorkflow, the one that landed most for LandingWorkflow.
            JsonObject golden = await repo.BacklogAsync(tx => Read(tx, tx.Session.Text("""
                SELECT w.workflow_uuid FROM {p}workflow_status w WHERE w.name = @name AND w.status = 'SUCCESS'
                ORDER BY (SELECT count(*) FROM {p}operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid) DESC LIMIT 1
                """, ("@name", workflow))!));
            if (workflow == "ExecuteTaskWorkflow")
                Assert.Contains(second, golden["id"]!.GetValue<string>(), StringComparison.Ordinal);
            await File.WriteAllTextAsync(FileOf(workflow), golden.ToJsonString(Readable) + "\n");
        }
    }

    private static JsonObject Read(WorkflowTransaction tx, string id)
    {
        JsonObject golden = tx.Session.First("""
            SELECT w.name, w.application_name, w.application_version, w.status, i.inputs, o.output FROM {p}workflow_status w
            JOIN {p}workflow_input i ON i.workflow_uuid = w.workflow_uuid JOIN {p}workflow_output o ON o.workflow_uuid = w.workflow_uuid
            WHERE w.workflow_uuid = @id
            """, r => new JsonObject
        {
            ["id"] = id,
            ["name"] = r.GetString(0),
            ["applicationName"] = r.GetString(1),
            ["applicationVersion"] = r.GetString(2),
            ["status"] = r.GetString(3),
            ["inputs"] = r.GetString(4),
            ["output"] = r.GetString(5),
        }, ("@id", id))!;
        golden["steps"] = new JsonArray([.. tx.Session.Query("""
            SELECT function_id, function_name, output, error, child_workflow_id FROM {p}operation_outputs WHERE workflow_uuid = @id ORDER BY function_id
            """, r => new JsonObject
        {
            ["id"] = r.GetInt64(0),
            ["name"] = r.GetString(1),
            ["output"] = r.IsDBNull(2) ? null : r.GetString(2),
            ["error"] = r.IsDBNull(3) ? null : r.GetString(3),
            ["child"] = r.IsDBNull(4) ? null : r.GetString(4),
        }, ("@id", id))]);
        return golden;
    }

    public static TheoryData<string> Names => [.. Workflows];

    [Theory]
    [MemberData(nameof(Names))]
    public async Task A_recorded_history_replays_to_its_recorded_end_without_running_a_step(string workflow)
    {
        JsonObject golden = JsonNode.Parse(await File.ReadAllTextAsync(FileOf(workflow)))!.AsObject();
        Assert.Equal(Protocol.Version, golden["applicationVersion"]!.GetValue<string>());
        int count = golden["steps"]!.AsArray().Count;
        Assert.True(count >= 3, "a history of so few steps proves nothing");
        using var folder = new TempFolder();
        var services = new NoServices();
        WorkflowStatus end = await ReplayAsync(folder.File("all.db"), golden, services);
        Assert.True(end.State == WorkflowState.Success, $"{workflow} of {Protocol.Version} no longer replays: {end.Error}; add a patch marker or raise the protocol");
        Assert.Equal(golden["output"]!.GetValue<string>(), end.Output);
        Assert.Equal(0, services.Asked);
    }

    /// <summary>The counterpart, or a workflow that lost its last steps would pass: each recorded row is asked for.</summary>
    [Theory]
    [MemberData(nameof(Names))]
    public async Task A_history_without_its_last_row_is_noticed(string workflow)
    {
        JsonObject golden = JsonNode.Parse(await File.ReadAllTextAsync(FileOf(workflow)))!.AsObject();
        JsonArray steps = golden["steps"]!.AsArray();
        JsonObject last = steps[^1]!.AsObject();
        steps.RemoveAt(steps.Count - 1);
        using var folder = new TempFolder();
        await using WorkflowEngine engine = await StartAsync(folder.File("short.db"), golden, new NoServices());
        long id = last["id"]!.GetValue<long>();
        string? name = null;
        // Looked at in this order: a row that is written before the end is there when the end is seen.
        await Eventually.TrueAsync(async () =>
        {
            bool ended = await engine.Client.StatusAsync(golden["id"]!.GetValue<string>()) is { IsEnded: true };
            name = await engine.Client.ReadAsync(db => db.Text("SELECT function_name FROM {p}operation_outputs WHERE workflow_uuid = @id AND function_id = @fid",
                ("@id", golden["id"]!.GetValue<string>()), ("@fid", id)));
            return ended || name is not null;
        }, $"step {id} is run anew");
        Assert.Equal(last["name"]!.GetValue<string>(), name);
    }

    private static async Task<WorkflowStatus> ReplayAsync(string path, JsonObject golden, NoServices services)
    {
        await using WorkflowEngine engine = await StartAsync(path, golden, services);
        string id = golden["id"]!.GetValue<string>();
        WorkflowStatus? status = null;
        await Eventually.TrueAsync(async () => (status = await engine.Client.StatusAsync(id)) is { IsEnded: true }, "the replay ends");
        IReadOnlyList<StepStatus> rows = await engine.Client.StepsAsync(id);
        Assert.Equal(golden["steps"]!.AsArray().Count, rows.Count);
        return status!;
    }

    // The backlog's tables are not there and no service is: whatever runs instead of being replayed fails.
    private static async Task<WorkflowEngine> StartAsync(string path, JsonObject golden, NoServices services)
    {
        string queue = "golden";
        WorkflowEngineOptions Options()
        {
            var options = new WorkflowEngineOptions
            {
                Dialect = new SqliteDialect(path),
                ApplicationName = golden["applicationName"]!.GetValue<string>(),
                ApplicationVersion = Protocol.Version,
            };
            options.UseJson(RunJson.Default);
            return options.AddWorkflow(RunFlow.Definition).AddWorkflow(TaskFlow.Definition).AddWorkflow(LandingFlow.Definition).AddQueue(new WorkflowQueue(queue));
        }
        await using (WorkflowClient client = await WorkflowClient.ConnectAsync(Options()))
            await client.TransactAsync(tx => Insert(tx, golden, queue));
        var engine = new WorkflowEngine(Options(), services, NullLogger<WorkflowEngine>.Instance);
        await engine.StartAsync();
        return engine;
    }

    private static bool Insert(WorkflowTransaction tx, JsonObject golden, string queue)
    {
        string? Text(JsonNode? node) => node?.GetValue<string>();
        string id = Text(golden["id"])!;
        tx.Session.Execute("""
            INSERT INTO {p}workflow_status (workflow_uuid, status, name, created_at, updated_at, application_version, queue_name, serialization, application_name)
            VALUES (@id, 'ENQUEUED', @name, @now, @now, @version, @queue, 'portable_json', @app)
            """, ("@id", id), ("@name", Text(golden["name"])), ("@now", tx.NowMs), ("@version", Text(golden["applicationVersion"])), ("@queue", queue),
            ("@app", Text(golden["applicationName"])));
        tx.Session.Execute("INSERT INTO {p}workflow_input (workflow_uuid, inputs, retention_timestamp) VALUES (@id, @inputs, @now)",
            ("@id", id), ("@inputs", Text(golden["inputs"])), ("@now", tx.NowMs));
        foreach (JsonNode? step in golden["steps"]!.AsArray())
        {
            tx.Session.Execute("""
                INSERT INTO {p}operation_outputs (workflow_uuid, function_id, function_name, output, error, child_workflow_id, started_at_epoch_ms,
                    completed_at_epoch_ms, serialization, application_name, retention_timestamp)
                VALUES (@id, @fid, @name, @output, @error, @child, @now, @now, 'portable_json', @app, @now)
                """, ("@id", id), ("@fid", step!["id"]!.GetValue<long>()), ("@name", Text(step["name"])), ("@output", Text(step["output"])),
                ("@error", Text(step["error"])), ("@child", Text(step["child"])), ("@now", tx.NowMs), ("@app", Text(golden["applicationName"])));
        }
        return true;
    }

    private sealed class NoServices : IServiceProvider
    {
        private int _asked;

        public int Asked => _asked;

        public object? GetService(Type serviceType)
        {
            Interlocked.Increment(ref _asked);
            throw new InvalidOperationException("a step ran although its result is recorded");
        }
    }
}
