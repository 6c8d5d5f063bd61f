using System.CommandLine;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.Orchestrator.Settings;
using Drover.Workflows;
using Drover.Workflows.Sqlite;
using Drover.Workflows.Storage;

namespace Drover.Cli;

/// <summary>A project as a command sees it: its folder, its settings in force and its database.</summary>
internal sealed class Project
{
    private Project(Caller caller, string root, ProjectSettings settings, DatabaseChoice database) =>
        (Caller, Root, Settings, Database) = (caller, root, settings, database);

    public Caller Caller { get; }

    /// <summary>The folder that holds <c>.drover</c>.</summary>
    public string Root { get; }

    public ProjectSettings Settings { get; }

    public DatabaseChoice Database { get; }

    /// <summary>The project's id.</summary>
    public string Id => Settings.Project;

    /// <summary>Finds the project from the caller's folder upwards.</summary>
    /// <exception cref="DroverException">NotFound without a project; InvalidInput for settings or a database address that cannot be used.</exception>
    public static Project Open(Caller caller, ParseResult parsed, IReadOnlyDictionary<string, string?>? flags = null) =>
        Open(caller, parsed.GetValue(GlobalOptions.Database), flags);

    /// <inheritdoc cref="Open(Caller, ParseResult, IReadOnlyDictionary{string, string?}?)"/>
    public static Project Open(Caller caller, string? databaseOption, IReadOnlyDictionary<string, string?>? flags = null)
    {
        string root = FindRoot(caller.Folder);
        // In a linked worktree of the user's the database is where the project is.
        Caller at = DatabaseChoice.ProjectRoot(caller.Folder) is null ? caller with { Folder = root } : caller;
        return new Project(caller, root, ProjectSettings.Load(root, caller.Environment, flags), ChooseDatabase(at, databaseOption));
    }

    /// <summary>The folder of the project: the nearest with <c>.drover</c> upwards, or, in a linked worktree, that of the main worktree.</summary>
    /// <exception cref="DroverException">NotFound.</exception>
    public static string FindRoot(string folder)
    {
        if (DatabaseChoice.ProjectRoot(folder) is { } root)
            return root;
        for (string? at = folder; at is not null; at = Path.GetDirectoryName(at))
        {
            // "gitdir: <main>/.git/worktrees/<name>", written by git itself.
            string link = Path.Combine(at, ".git");
            if (File.Exists(link) && File.ReadLines(link).FirstOrDefault() is { } line && line.StartsWith("gitdir: ", StringComparison.Ordinal)
                && Path.GetFullPath(line["gitdir: ".Length..], at).Split("/.git/worktrees/") is [{ } main, _] && ProjectSettings.Exists(main))
                return main;
        }
        throw new DroverException(ErrorCode.NotFound, $"there is no .drover folder in {folder} or above: run `drover init` in a git repository");
    }

    /// <summary>The database by the rule of precedence.</summary>
    public static DatabaseChoice ChooseDatabase(Caller caller, string? databaseOption) =>
        DatabaseChoice.Find(databaseOption, caller.Environment, caller.Folder, Caller.IsAlive, HasBacklog);

    /// <summary>Reads the backlog without a writer, so that a look never waits for a run, and starts nothing.</summary>
    public async Task<T> ReadAsync<T>(Func<SqlSession, T> read, CancellationToken cancellationToken = default)
    {
        await using (var dialect = new SqliteDialect(Database.Path, create: false))
        {
            if (await dialect.ReadAsync(TimeProvider.System, IsCurrent, cancellationToken))
                return await dialect.ReadAsync(TimeProvider.System, read, cancellationToken);
        }
        // Older or newer than this program: the client migrates it, or refuses it with the right message.
        await using WorkflowClient client = await ConnectAsync();
        return await client.ReadAsync(read, cancellationToken);
    }

    /// <summary>Runs one transaction on the backlog.</summary>
    public async Task<T> ChangeAsync<T>(Func<WorkflowTransaction, T> change, CancellationToken cancellationToken = default)
    {
        await using WorkflowClient client = await ConnectAsync();
        return await client.TransactAsync(change, cancellationToken);
    }

    /// <summary>Opens the database for several transactions.</summary>
    public Task<WorkflowClient> ConnectAsync() => ConnectAsync(Database.Path, Id, create: false);

    /// <summary>Opens or creates a database and brings it to this program's version.</summary>
    public static async Task<WorkflowClient> ConnectAsync(string path, string project, bool create)
    {
        var options = new WorkflowEngineOptions
        {
            Dialect = new SqliteDialect(path, create),
            ApplicationName = Protocol.Application(project),
            ApplicationVersion = Protocol.Version,
        };
        options.UseJson(RunJson.Default);
        options.Migrations.Add(BacklogSchema.Migrations);
        return await WorkflowClient.ConnectAsync(options);
    }

    // One version of the engine's tables is known so far; a mismatch costs only the slower way.
    private const long EngineVersion = 1;

    private static bool IsCurrent(SqlSession session)
    {
        if (session.Number("SELECT COUNT(*) FROM sqlite_master WHERE name = 'drover_migrations'") == 0)
            return false;
        return session.Number("SELECT version FROM {d}migrations WHERE component = @component", ("@component", "engine")) == EngineVersion
            && session.Number("SELECT version FROM {d}migrations WHERE component = @component", ("@component", BacklogSchema.Migrations.Component)) == BacklogSchema.Migrations.Scripts.Count;
    }

    private static bool HasBacklog(string path)
    {
        var dialect = new SqliteDialect(path, create: false);
        try
        {
            ValueTask<bool> answer = dialect.ReadAsync(TimeProvider.System, session =>
                session.Number("SELECT COUNT(*) FROM sqlite_master WHERE name = 'drover_tasks'") > 0 && session.Number("SELECT COUNT(*) FROM (SELECT 1 FROM {d}tasks LIMIT 1)") > 0, default);
            return answer.IsCompletedSuccessfully ? answer.Result : answer.AsTask().GetAwaiter().GetResult();
        }
        finally
        {
            // The dialect of SQLite closes synchronously.
            dialect.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }
}
