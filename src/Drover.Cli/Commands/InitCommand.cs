using System.CommandLine;
using Drover.Cli.Terminal;
using Drover.Orchestrator.Gates;
using Drover.Orchestrator.Git;
using Drover.Orchestrator.Settings;
using Drover.Workflows;

namespace Drover.Cli.Commands;

/// <summary><c>drover init</c>. Repeating it changes nothing.</summary>
internal static class InitCommand
{
    private const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    public static Command Create(Caller caller)
    {
        var target = new Option<string?>("--target") { Description = "The branch on which finished work lands. Default: the one that is checked out.", HelpName = "branch" };
        var testCommand = new Option<string?>("--test-command") { Description = "The command that must succeed on every tree that lands. Default: found by the kind of project.", HelpName = "command" };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("init", "Make the git repository a Drover project. Repeating it changes nothing.") { target, testCommand, json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            InitModel done = await InitializeAsync(caller, parsed.GetValue(GlobalOptions.Database), parsed.GetValue(target), parsed.GetValue(testCommand), new Dictionary<string, string>(), cancellationToken);
            if (parsed.GetValue(json))
                caller.Output.Json(done, CliJson.Default.InitModel);
            else
                Show(caller.Output, done);
            return ExitCodes.Done;
        });
        return command;
    }

    /// <summary>Makes the project, or checks the one there is.</summary>
    public static async Task<InitModel> InitializeAsync(
        Caller caller, string? databaseOption, string? target, string? testCommand, IReadOnlyDictionary<string, string> settings, CancellationToken cancellationToken)
    {
        Repository repository = await OpenAsync(caller, caller.Folder, cancellationToken);
        bool created = !ProjectSettings.Exists(repository.Root);
        string? configured = created ? null : ProjectSettings.Load(repository.Root, caller.Environment).Target;
        string branch = await repository.DetectTargetAsync(target ?? configured, cancellationToken);
        string? test = testCommand is null ? GateCommand.Detect(repository.Root)?.Text : GateCommand.Parse(testCommand).Text;
        string path = FindDatabase(caller, databaseOption, repository.Root);

        if (!created && (target is not null && StatusStyle.Branch(configured ?? "") != StatusStyle.Branch(branch)))
            throw new DroverException(ErrorCode.Conflict, $"the project lands on {configured ?? "no branch yet"}: change it with `drover config set target {StatusStyle.Branch(branch)}`");
        if (!created && testCommand is not null && ProjectSettings.Load(repository.Root, caller.Environment).TestCommand != test)
            throw new DroverException(ErrorCode.Conflict, "the project has another test command: change it with `drover config set testCommand <command>`");

        MakePrivate(repository.StateDirectory);
        repository.EnsureExcluded();
        var values = new Dictionary<string, string>(settings) { ["target"] = StatusStyle.Branch(branch) };
        if (test is not null)
            values["testCommand"] = test;
        string project = ProjectSettings.Create(repository.Root, values);
        await (await Project.ConnectAsync(path, project, create: true)).DisposeAsync();
        ProjectSettings inForce = ProjectSettings.Load(repository.Root, caller.Environment);
        return new InitModel(repository.Root, project, inForce.Target ?? StatusStyle.Branch(branch), inForce.TestCommand, path, created, repository.Hooks());
    }

    /// <summary>Opens the repository that contains a folder, with the caller's environment.</summary>
    public static Task<Repository> OpenAsync(Caller caller, string folder, CancellationToken cancellationToken)
    {
        var environment = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach ((string name, string? value) in caller.Environment)
        {
            if (value is not null)
                environment[name] = value;
        }
        return Repository.OpenAsync(new GitClient(user: environment), folder, cancellationToken);
    }

    private static string FindDatabase(Caller caller, string? option, string root)
    {
        try
        {
            return Project.ChooseDatabase(caller with { Folder = root }, option).Path;
        }
        catch (DroverException e) when (e.Code == ErrorCode.NotFound)
        {
            // Nothing names another one, and there is none yet.
            return Path.Combine(root, ".drover", "drover.db");
        }
    }

    private static void MakePrivate(string folder)
    {
        try
        {
            if (!Directory.Exists(folder))
                Directory.CreateDirectory(folder, Private);
            else if (File.GetUnixFileMode(folder) != Private)
                File.SetUnixFileMode(folder, Private);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new DroverException(ErrorCode.InvalidInput, $"{folder} cannot be made: {e.Message.TrimEnd('.')}; check the permissions of the repository's folder", e);
        }
    }

    private static void Show(Output output, InitModel done)
    {
        output.Line(done.Created ? "Created a Drover project in " : "Already a Drover project: ", done.Root);
        output.Line("  target        ", (done.Target, Colour.Cyan));
        output.Line("  test command  ", done.TestCommand ?? "none yet: `drover config set testCommand <command>`");
        output.Line("  database      ", done.Database);
        if (done.Hooks.Count > 0)
            output.Say(($"note: this repository has git hooks ({string.Join(", ", done.Hooks)}); Drover never runs them; put what they check into the test command.", Colour.Yellow));
        if (done.Created)
            output.Say("next: `drover add <title>`, then `drover run`");
    }
}
